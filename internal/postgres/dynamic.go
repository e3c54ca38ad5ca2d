package postgres

import (
	"encoding/json"
	"errors"
	"os"
)

// dynamicFile is where the dynamic configuration is kept in the data directory, by the name that Patroni gives it.
const dynamicFile = "patroni.dynamic.json"

// KeepDynamic writes the dynamic configuration into the data directory, whole or not at all.
func (i *Instance) KeepDynamic(raw json.RawMessage) error {
	_, err := i.replaceFile(i.path(dynamicFile), raw, i.fileMode())
	return err
}

// KeptDynamic is what KeepDynamic wrote last, or Patroni; nil: nothing.
func (i *Instance) KeptDynamic() (json.RawMessage, error) {
	raw, err := os.ReadFile(i.path(dynamicFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}
