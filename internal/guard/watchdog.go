package guard

import (
	"fmt"
	"os"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"golang.org/x/sys/unix"
)

// Watchdog is a device that resets the host when nobody feeds it for Timeout: the second line, should the guard itself get
// no processor (Linux, watchdog-api).
type Watchdog struct {
	Device  string        `json:"device"`
	Testing bool          `json:"testing,omitempty"` // the device is a FIFO, which is told in plain text what a device is told by calls
	Timeout time.Duration `json:"timeout"`           // in whole seconds
	// Required: without it no deadline is accepted.
	Required bool `json:"required,omitempty"`
}

// beforeReset is how long before the device resets the host the guard has to have ended the server.
const beforeReset = 2 * time.Second

// dog is an open watchdog.
type dog struct {
	file *os.File
	is   Watchdog
}

// feed opens the device if need be and feeds it. It returns when the server must have ended, so that the host is not
// reset: 0 if there is no watchdog.
func (c *core) feed(w *Watchdog) (cluster.Instant, error) {
	if w == nil {
		c.letDogGo()
		c.state.Watchdog = ""
		return 0, nil
	}
	if c.dog != nil && c.dog.is != *w {
		c.letDogGo()
	}
	fed := bootclock.Now()
	err := c.openDog(*w)
	if err == nil {
		_, err = c.dog.file.Write([]byte("1"))
	}
	if err != nil {
		c.letDogGo()
		text := "not held: " + err.Error()
		if c.state.Watchdog != text {
			c.log.Warn("the watchdog is not held", "device", w.Device, "error", err)
		}
		c.state.Watchdog = text
		if w.Required {
			return 0, fmt.Errorf("the watchdog, which is required, %s", text)
		}
		return 0, nil
	}
	c.state.Watchdog = Held
	return fed.Add(w.Timeout - beforeReset), nil
}

func (c *core) openDog(w Watchdog) error {
	if c.dog != nil {
		return nil
	}
	f, err := os.OpenFile(w.Device, os.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // a FIFO that nobody reads would hold us up
	if err != nil {
		return err
	}
	c.dog = &dog{file: f, is: w}
	if err := c.dog.setTimeout(); err != nil {
		return err
	}
	c.log.Info("watchdog opened", "device", w.Device, "timeout", w.Timeout)
	return nil
}

// setTimeout refuses a device that takes longer than it is asked to: the lease would be over by then.
func (d *dog) setTimeout() error {
	seconds := int(d.is.Timeout / time.Second)
	if d.is.Testing {
		_, err := fmt.Fprintf(d.file, "Ctimeout=%d\n", seconds)
		return err
	}
	fd := int(d.file.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		return fmt.Errorf("set its timeout to %d s: %w", seconds, err)
	}
	is, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return fmt.Errorf("ask for its timeout: %w", err)
	}
	if is > seconds {
		return fmt.Errorf("its timeout is %d s, and cannot be %d s: raise ttl, or lower watchdog.safety_margin", is, seconds)
	}
	return nil
}

// letDogGo closes the device with the character that tells it that this is meant.
func (c *core) letDogGo() {
	if c.dog == nil {
		return
	}
	if _, err := c.dog.file.Write([]byte("V")); err != nil {
		c.log.Error("the watchdog could not be told to rest, and may reset this host", "device", c.dog.is.Device, "error", err)
	}
	c.dog.file.Close()
	c.dog = nil
}
