package etcd

import "errors"

// Refused tells whether etcd answered and will not change its mind by being asked again: a wrong password, a missing
// right, a full database. A caller that waits for etcd need not wait longer.
func Refused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}
