using Unity.MLAgents;
using UnityEngine;

namespace Sharl
{
    /// <summary>
    /// Beside an Agent: Python may end this agent's episode. It needs no settings and nothing else in the scene.
    /// </summary>
    /// <remarks>
    /// There is no OnDisable: SharlReset looks before every step who is there. The execution order is after that of the
    /// agents, for they are to be the ones who bring the Academy up.
    /// </remarks>
    [RequireComponent(typeof(Agent))]
    [DisallowMultipleComponent]
    [DefaultExecutionOrder(100)]
    [AddComponentMenu("Sharl/Sharl Agent")]
    public class SharlAgent : MonoBehaviour
    {
        Agent m_Agent;

        /// <summary>The agent, or null while either of the two is disabled, or the agent destroyed.</summary>
        internal Agent Present
        {
            get
            {
                bool present = isActiveAndEnabled && m_Agent != null && m_Agent.isActiveAndEnabled;
                return present ? m_Agent : null;
            }
        }

        void OnEnable()
        {
            m_Agent = GetComponent<Agent>();
            SharlReset.Join(this);
        }
    }
}
