package policyd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-mail/postern/internal/transient"
)

// folderOf checks the folder of a store's file. A missing folder may be mounted later.
func folderOf(path string) error {
	folder := filepath.Dir(path)
	_, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return transient.Mark(fmt.Errorf("directory %s does not exist; create it for the daemon's user: install -d -o postern -m 700 %s", folder, folder))
	}
	return err
}
