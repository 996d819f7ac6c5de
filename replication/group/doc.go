// Package group is a node's part in the network (DESIGN §6): Raft between real
// nodes, over cluster/port and cluster/call.
package group
