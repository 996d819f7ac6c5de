package world

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"pelago/cluster/fault"
)

// SiteVariable is the variable of a process's environment that says at which
// site it stands.
const SiteVariable = "CHAOS_SITE"

// Environ returns the entry of the environment of processes that stand at a
// site.
func Environ(site Site) string { return SiteVariable + "=" + string(site) }

// TCP is the loopback of this machine. Processes are told apart by
// [SiteVariable] in their environment, which needs /proc of Linux and the right
// to read it of them; elsewhere use [World.GateFrom].
type TCP struct {
	// Self is where this process stands; "": nowhere.
	Self Site
}

// Listen listens on a free port.
func (TCP) Listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp4", "127.0.0.1:0")
}

// Dial connects to a node.
func (TCP) Dial(ctx context.Context, _ Site, address string) (Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// Origin returns the site of the process that holds the other end. Where several
// hold it, all inherited it, and any tells. A connection that its dialler has
// closed meanwhile is nobody's ([fault.Canceled]): who closes within the
// millisecond or two that this takes is not heard.
func (t TCP) Origin(accepted Conn) (Site, error) {
	inode, err := socketInode(accepted.RemoteAddr(), accepted.LocalAddr())
	if err != nil {
		return "", err
	}
	if t.Self != "" && holds("/proc/self", inode) {
		return t.Self, nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", err
	}
	for _, p := range processes {
		// The environment first: most processes are not of any world.
		if site := siteOf(p); site != "" && holds(p, inode) {
			return site, nil
		}
	}
	return "", fault.New(fault.NotFound, "no process with %s holds socket %s", SiteVariable, inode)
}

// socketInode returns the inode of the TCP socket with these addresses.
func socketInode(local, remote net.Addr) (string, error) {
	l, err1 := netip.ParseAddrPort(local.String())
	r, err2 := netip.ParseAddrPort(remote.String())
	if err1 != nil || err2 != nil || !l.Addr().Is4() || !r.Addr().Is4() {
		return "", fault.New(fault.Unsupported, "no IPv4 addresses: %s, %s", local, remote)
	}
	table, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", fault.New(fault.Unsupported, "who dialled: %w", err)
	}
	defer table.Close()
	return findInode(bufio.NewScanner(table), kernelAddr(l)+" "+kernelAddr(r))
}

// findInode looks for a pair of addresses in /proc/net/tcp (proc(5)).
func findInode(lines *bufio.Scanner, pair string) (string, error) {
	for lines.Scan() {
		_, line, _ := strings.Cut(lines.Text(), ": ")
		if rest, ok := strings.CutPrefix(line, pair); ok {
			// st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
			f := strings.Fields(rest)
			switch {
			case len(f) <= 6:
				continue
			case f[6] == "0":
				return "", fault.New(fault.Canceled, "socket %s is closed already", pair)
			}
			return f[6], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", fault.New(fault.NotFound, "no socket %s", pair)
}

// kernelAddr writes an IPv4 address and port as /proc/net/tcp does: the address
// as a number in the machine's byte order.
func kernelAddr(a netip.AddrPort) string {
	ip := a.Addr().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), a.Port())
}

// siteOf returns the site that a process's environment names.
func siteOf(process string) Site {
	environ, err := os.ReadFile(filepath.Join(process, "environ"))
	if err != nil {
		return "" // it ended, or is not ours
	}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if site, ok := bytes.CutPrefix(entry, []byte(SiteVariable+"=")); ok {
			return Site(site)
		}
	}
	return ""
}

// holds reports whether a process has the socket open.
func holds(process, inode string) bool {
	dir := filepath.Join(process, "fd")
	d, err := os.Open(dir)
	if err != nil {
		return false // it ended, or is not ours
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return false
	}
	want := "socket:[" + inode + "]"
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		if link, err := os.Readlink(filepath.Join(dir, name)); err == nil && link == want {
			return true
		}
	}
	return false
}
