package hosts

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	device = "eth0"
	// mtu is that of jumbo frames, so that the copy of a database is few of them.
	mtu = 9000
)

// port is one host's end of the wire.
type port struct {
	index  int
	mac    net.HardwareAddr
	frames *os.File // one frame a read or write (Linux, Documentation/networking/tuntap.rst)
}

func macOf(index int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0, 0, 0, 0x77, byte(index + 11)}
}

// openTap gives the namespace its network device and address.
func openTap(s *namespace, index int, addr netip.Addr) (*port, error) {
	p := &port{index: index, mac: macOf(index)}
	err := s.inside(func() (err error) {
		if p.frames, err = tap(); err != nil {
			return err
		}
		return configure(p.mac, addr)
	})
	if err != nil && p.frames != nil {
		p.frames.Close()
	}
	return p, err
}

func tap() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(device)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that Go's poller waits, and Close ends a read
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TAP device: %w", err)
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

func configure(mac net.HardwareAddr, addr netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return err
	}
	ip := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(link, ip); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}
