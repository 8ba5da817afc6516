// Who can be reset, and what Python knows of it. One for the whole player, whatever its scenes; the first SharlAgent
// starts it, so that nothing has to be put into a scene.
//
// Before each step of the Academy we look who is there and under which wire id. If Python does not know it so, HERE is
// queued, and leaves before, or together with, the first observation under a new id. At that time every agent that is
// enabled has its id; in OnEnable it might not have it yet. Looking costs one read of a field for each agent; in return
// nothing has to be noticed: agents that come, go, are destroyed, or are disabled and enabled again.
//
// A RESET arrives within a step, after the observations left and before anybody acts. The agent's episode ends at once:
// its last observation is queued, OnEpisodeBegin runs, the action that came for it is not carried out. Whoever Python
// was not told of, or who changed since, is answered as unknown. The end and DONE leave with the next exchange.

using System;
using System.Collections.Generic;
using System.Reflection;
using Unity.MLAgents;
using Unity.MLAgents.SideChannels;
using UnityEngine;

namespace Sharl
{
    static class SharlReset
    {
        // ML-Agents has no public way to an agent's wire id. Null if this version of the package names it differently.
        static readonly FieldInfo k_WireId =
            typeof(Agent).GetField("m_EpisodeId", BindingFlags.Instance | BindingFlags.NonPublic);

        static readonly List<SharlAgent> s_Agents = new List<SharlAgent>(); // by index; a destroyed one's place is free
        static readonly List<int> s_WireIds = new List<int>(); // by index, as last sent to Python
        static bool s_Told; // whether Python was sent any
        static Academy s_Academy;
        static ResetChannel s_Channel;

        /// <summary>Give the agent an index, which it keeps until it is destroyed; start, if it is the first.</summary>
        internal static void Join(SharlAgent agent)
        {
            if (!s_Agents.Contains(agent))
            {
                int free = s_Agents.FindIndex(each => each == null); // Unity: a destroyed object equals null
                if (free >= 0)
                {
                    s_Agents[free] = agent;
                }
                else
                {
                    s_Agents.Add(agent);
                    s_WireIds.Add(ResetChannel.Nobody);
                }
            }
            if (s_Academy != Academy.Instance)
            {
                Start(Academy.Instance);
            }
        }

        // Once for each Academy. There is no counterpart: the Academy drops channels and listeners when it is disposed,
        // and until then a request is to get its answer, even while no agent is there.
        static void Start(Academy academy)
        {
            if (!CanRead())
            {
                Debug.LogError("Sharl: Python cannot reset agents in this build. The installed version of "
                    + "com.unity.ml-agents has no int Agent.m_EpisodeId (2.2.1-exp.1 and 3.0.0 have it), or it was "
                    + "stripped (copy Sharl's link.xml into Assets). Training works all the same.");
            }
            s_Academy = academy;
            s_Told = false;
            s_Channel = new ResetChannel(End);
            // By id: should one of an earlier play session be left over, registering a second time would throw.
            SideChannelManager.UnregisterSideChannel(s_Channel);
            SideChannelManager.RegisterSideChannel(s_Channel);
            academy.AgentPreStep += Look;
        }

        // The Editor can enter play mode without reloading the statics.
        [RuntimeInitializeOnLoadMethod(RuntimeInitializeLoadType.SubsystemRegistration)]
        static void Forget()
        {
            if (s_Academy != null)
            {
                s_Academy.AgentPreStep -= Look;
            }
            s_Academy = null;
            s_Channel = null;
            s_Agents.Clear();
            s_WireIds.Clear();
            s_Told = false;
        }

        static void Look(int academyStep)
        {
            if (!s_Academy.IsCommunicatorOn)
            {
                return;
            }
            bool news = !s_Told;
            for (int index = 0; index < s_Agents.Count; index++)
            {
                int wireId = WireId(s_Agents[index]);
                news |= wireId != s_WireIds[index];
                s_WireIds[index] = wireId;
            }
            if (news)
            {
                s_Channel.SendHere(s_WireIds);
            }
            if (!s_Told)
            {
                int there = s_WireIds.FindAll(each => each != ResetChannel.Nobody).Count;
                Debug.Log("Sharl: Python can reset " + there + " agents");
                s_Told = true;
            }
        }

        static bool End(int wireId)
        {
            int index = s_Told && wireId != ResetChannel.Nobody ? s_WireIds.IndexOf(wireId) : -1;
            // Looked at again: an OnEpisodeBegin earlier in this message may have disabled or destroyed this agent.
            if (index < 0 || WireId(s_Agents[index]) != wireId)
            {
                return false;
            }
            try
            {
                s_Agents[index].Present.EpisodeInterrupted();
            }
            catch (Exception exception)
            {
                // The scene's own code, in OnEpisodeBegin or CollectObservations. Python still gets its answer.
                Debug.LogException(exception, s_Agents[index]);
            }
            return true;
        }

        static int WireId(SharlAgent each)
        {
            Agent agent = each != null ? each.Present : null;
            return agent != null && CanRead() ? (int)k_WireId.GetValue(agent) : ResetChannel.Nobody;
        }

        static bool CanRead()
        {
            return k_WireId != null && k_WireId.FieldType == typeof(int);
        }
    }
}
