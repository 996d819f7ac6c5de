// Package fleet runs networks of real nodes: processes of pelago/chaos/proc at
// sites that a pelago/chaos/world lies between. [Start] founds a network and has
// the other sites join it, with tokens and over the world's links, as operators
// would; a [Node] is reached by its own faces past the world, as by a workstation
// in the same building, and by other nodes through its gate only.
//
// A fleet belongs to one goroutine, but for its world. It judges nothing.
package fleet
