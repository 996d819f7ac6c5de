package cache

import "golang.org/x/sys/unix"

// populate has the system map all pages at once: they will be written right away,
// and a fault for each costs several times as much.
const populate = unix.MAP_POPULATE
