package journal

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkSettle measures what a query waits for after each stored instance,
// on the disk of the working directory's file system.
func BenchmarkSettle(b *testing.B) {
	b.Chdir(b.TempDir())
	n, s := openNode(b, vfs.Default, newOrder(b)), newSource()
	defer n.close(b)
	defer n.run(b, s)()
	for i := 0; b.Loop(); i++ {
		study := fmt.Sprintf("1.2.%d", i/100)
		n.j.Dirty(s.store(study, study+".1"), study, study+".1")
		if err := n.j.Settle(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
