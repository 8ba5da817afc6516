// The words between Python and a player about ending the episodes of single agents. Acting on them is SharlReset's.
//
//     from Python   RESET   1, request, count, wire ids                        end these agents' episodes now
//     to Python     HERE    2, count, (index, wire id) each                    who is there; all of them, every time
//     to Python     DONE    3, request, count, wire ids, count, wire ids       these were ended; these are not here
//
// Everything is int32, little-endian. A wire id is the number under which ML-Agents sends an agent's observations. It
// changes when the agent is disabled and enabled again; the index does not. Every RESET that can be read gets one DONE.

using System;
using System.Collections.Generic;
using Unity.MLAgents.SideChannels;
using UnityEngine;

namespace Sharl
{
    /// <summary>Reads RESET; writes HERE and DONE.</summary>
    public class ResetChannel : SideChannel
    {
        /// <summary>In place of a wire id: there is no agent under this index.</summary>
        public const int Nobody = -1;

        const string Id = "1549ead9-40a4-4b38-86ca-0ac172678d0a";
        const int OpcodeReset = 1;
        const int OpcodeHere = 2;
        const int OpcodeDone = 3;

        readonly Func<int, bool> m_End;

        /// <param name="end">Ends the episode of the agent with this wire id; false if there is no such agent.</param>
        public ResetChannel(Func<int, bool> end)
        {
            ChannelId = new Guid(Id);
            m_End = end;
        }

        /// <summary>Queue HERE for the next exchange.</summary>
        /// <param name="wireIds">Wire id or Nobody, by index.</param>
        public void SendHere(List<int> wireIds)
        {
            using (OutgoingMessage message = new OutgoingMessage())
            {
                message.WriteInt32(OpcodeHere);
                message.WriteInt32(wireIds.FindAll(each => each != Nobody).Count);
                for (int index = 0; index < wireIds.Count; index++)
                {
                    if (wireIds[index] != Nobody)
                    {
                        message.WriteInt32(index);
                        message.WriteInt32(wireIds[index]);
                    }
                }
                QueueMessageToSend(message);
            }
        }

        protected override void OnMessageReceived(IncomingMessage message)
        {
            int words = message.GetRawBytes().Length / 4;
            int opcode = words > 0 ? message.ReadInt32() : 0;
            if (opcode != OpcodeReset)
            {
                Debug.LogWarning("Sharl: ignored a message with the unknown opcode " + opcode
                    + "; is this package of the same version as sharl in Python?");
                return;
            }

            int request = words > 1 ? message.ReadInt32() : 0;
            int count = words > 2 ? message.ReadInt32() : -1;
            if (count < 0 || count > words - 3)
            {
                Debug.LogWarning("Sharl: refused reset request " + request + ": it names " + count
                    + " agents, and " + Math.Max(words - 3, 0) + " follow");
                return;
            }

            List<int> ended = new List<int>();
            List<int> unknown = new List<int>();
            for (int i = 0; i < count; i++)
            {
                int wireId = message.ReadInt32();
                (m_End(wireId) ? ended : unknown).Add(wireId);
            }
            SendDone(request, ended, unknown);
        }

        void SendDone(int request, List<int> ended, List<int> unknown)
        {
            using (OutgoingMessage message = new OutgoingMessage())
            {
                message.WriteInt32(OpcodeDone);
                message.WriteInt32(request);
                foreach (List<int> wireIds in new[] { ended, unknown })
                {
                    message.WriteInt32(wireIds.Count);
                    foreach (int wireId in wireIds)
                    {
                        message.WriteInt32(wireId);
                    }
                }
                QueueMessageToSend(message);
            }
        }
    }
}
