package cache

// memory is what one value needs.
type memory struct {
	bytes  []byte
	mapped bool // of the system, to be given back
}

// allocate returns memory of the system if it is wanted and there is some, else
// of the heap.
func allocate(size int, mapped bool) memory {
	if mapped {
		if b, err := mapBytes(size); err == nil {
			return memory{b, true}
		}
	}
	return memory{bytes: make([]byte, size)}
}

// release gives memory back. Nobody may look at it any more.
func (m memory) release() {
	if !m.mapped {
		return // the collector's
	}
	if err := unmapBytes(m.bytes); err != nil {
		panic("cache: unmap: " + err.Error()) // only for bytes that were not mapped
	}
}

func release(all []memory) {
	for _, m := range all {
		m.release()
	}
}
