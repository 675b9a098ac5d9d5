// Sessions: connections with a prepared statement.
//
// A session uses a driver of database/sql without that package's pool, because our own
// pool can use several servers. A statement is prepared once for each connection; its
// arguments and values are text.

package sql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postmap/remote"
)

// driverConn is a connection with its prepared statement.
type driverConn struct {
	conn driver.Conn
	stmt driver.Stmt
}

// prepareOn takes a connection over and prepares the statement.
func prepareOn(ctx context.Context, conn driver.Conn, statement string) (*driverConn, error) {
	prepared, err := prepareConn(ctx, conn, statement)
	if err != nil {
		_ = conn.Close() // the first error is the one that explains it
		return nil, err
	}
	return prepared, nil
}

// prepareConn prepares a statement on a connection that stays the caller's.
func prepareConn(ctx context.Context, conn driver.Conn, statement string) (*driverConn, error) {
	preparer, ok := conn.(driver.ConnPrepareContext)
	if !ok {
		return nil, errors.New("the driver prepares without a context")
	}
	stmt, err := preparer.PrepareContext(ctx, statement)
	if err != nil {
		return nil, fmt.Errorf("prepare the query: %w", err)
	}
	return &driverConn{conn: conn, stmt: stmt}, nil
}

// Close closes the connection.
func (c *driverConn) Close() {
	_ = c.stmt.Close() // nothing was written that could be lost
	_ = c.conn.Close()
}

// expected is what is expected of the result of a query.
type expected struct {
	FirstColumn bool // return the first column only
	NeedResult  bool // it is an error if the statement returns no result set
}

// Bounds of the result of one query.
const (
	maxValues = 10_000
	maxResult = 1 << 20 // octets of all values
)

// Query runs the statement and returns every value that is not NULL. After an error the
// connection must be closed.
func (c *driverConn) Query(ctx context.Context, args []string, o expected) (found []string, err error) {
	queryer, ok := c.stmt.(driver.StmtQueryContext)
	if !ok {
		return nil, errors.New("the driver queries without a context")
	}
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	rows, err := queryer.QueryContext(ctx, values)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer func() {
		if closed := rows.Close(); err == nil && closed != nil {
			err = fmt.Errorf("query: %w", closed)
		}
	}()
	columns := len(rows.Columns())
	if columns == 0 && o.NeedResult {
		return nil, errors.New("the query gave no result set (require_result_set = yes)")
	}
	if columns == 0 {
		return nil, nil
	}
	if found, err = readSet(rows, columns, o); err != nil {
		return nil, err
	}
	return found, noMoreSets(rows)
}

func readSet(rows driver.Rows, columns int, o expected) (found []string, err error) {
	row := make([]driver.Value, columns)
	size := 0
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("read the result: %w", err)
		}
		for i, value := range row {
			if value == nil || o.FirstColumn && i > 0 {
				continue
			}
			// A value ends at a NUL, as in Postfix. BINARY columns are filled up with them.
			visible, _, _ := strings.Cut(text(value), "\x00")
			found = append(found, visible)
			size += len(found[len(found)-1])
		}
		if len(found) > maxValues || size > maxResult {
			return nil, &remote.KeyError{What: fmt.Sprintf("the result has more than %d values or %d octets", maxValues, maxResult)}
		}
	}
}

// noMoreSets returns an error for a stored procedure with several results.
func noMoreSets(rows driver.Rows) error {
	next, ok := rows.(driver.RowsNextResultSet)
	if !ok || !next.HasNextResultSet() {
		return nil
	}
	switch err := next.NextResultSet(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("read the result: %w", err)
	case len(rows.Columns()) > 0:
		return errors.New("the query gave more than one result set")
	}
	return nil
}

// text formats a value as the server's own client library does.
func text(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float32:
		return strings.Replace(strconv.FormatFloat(float64(v), 'g', -1, 32), "e+", "e", 1)
	case float64:
		return strings.Replace(strconv.FormatFloat(v, 'g', -1, 64), "e+", "e", 1)
	case bool:
		if v {
			return "1"
		}
		return "0"
	case time.Time:
		return v.Format(time.DateTime)
	}
	return fmt.Sprint(v)
}
