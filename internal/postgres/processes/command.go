package processes

// Command is how a server's postmaster is started. Whoever starts it puts it into a session of its own, in its data
// directory, and sends what it prints to Log.
type Command struct {
	Path   string   `json:"path"`
	Args   []string `json:"args"` // without the program's name
	Env    []string `json:"env"`
	Log    string   `json:"log"`
	Server Server   `json:"server"`
	// MustBeArmed: whoever starts it refuses unless it holds a deadline at which it ends the server.
	MustBeArmed bool `json:"must_be_armed,omitempty"`
	// User is as whom it runs; nil: as who starts it.
	User *User `json:"user,omitempty"`
}

// User is a user of the operating system by numbers.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// Launcher starts servers in place of the process that asks for it, and is their parent.
type Launcher interface {
	// Launch starts the server. After an error it may run all the same: look for its processes.
	Launch(c Command) (pid int, err error)
	// ExitStatus is how the server with that pid ended, waiting a moment for it to be known; empty: unknown.
	ExitStatus(pid int) string
}
