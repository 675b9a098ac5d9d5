//go:build openssl && cgo

package rsaengine

/*
#cgo noescape postern_submit
#cgo nocallback postern_submit
#cgo noescape postern_collect
#cgo nocallback postern_collect
#include <errno.h>
#include <pthread.h>
#include <unistd.h>
#include "job.h"

typedef struct {
	pthread_mutex_t mutex;
	pthread_cond_t more;
	postern_job *first, **last; // to sign
	postern_job *done;
	int wake; // an eventfd(2): done is not empty any more
	int ended;
} postern_queue;

static postern_queue *postern_new_queue(int wake) {
	postern_queue *q = calloc(1, sizeof *q);
	if (q == NULL)
		return NULL;
	pthread_mutex_init(&q->mutex, NULL);
	pthread_cond_init(&q->more, NULL);
	q->last = &q->first;
	q->wake = wake;
	return q;
}

// Returns 0 if the queue has ended.
static int postern_submit(postern_queue *q, postern_job *j) {
	int ended;
	pthread_mutex_lock(&q->mutex);
	ended = q->ended;
	if (!ended) {
		j->next = NULL;
		*q->last = j;
		q->last = &j->next;
		pthread_cond_signal(&q->more);
	}
	pthread_mutex_unlock(&q->mutex);
	return !ended;
}

static void postern_finish(postern_queue *q, postern_job *j) {
	static const uint64_t one = 1;
	int wake;
	pthread_mutex_lock(&q->mutex);
	wake = q->done == NULL;
	j->next = q->done;
	q->done = j;
	pthread_mutex_unlock(&q->mutex);
	if (wake)
		while (write(q->wake, &one, sizeof one) < 0 && errno == EINTR)
			;
}

// Returns the next job, or NULL when the queue has ended.
static postern_job *postern_next(postern_queue *q) {
	postern_job *j;
	pthread_mutex_lock(&q->mutex);
	while (q->first == NULL && !q->ended)
		pthread_cond_wait(&q->more, &q->mutex);
	j = q->first;
	if (j != NULL && (q->first = j->next) == NULL)
		q->last = &q->first;
	pthread_mutex_unlock(&q->mutex);
	return j;
}

static void postern_work(postern_queue *q) {
	postern_job *j;
	while ((j = postern_next(q)) != NULL) {
		ERR_clear_error();
		j->length = j->room;
		j->ok = EVP_PKEY_sign(j->ctx, j->signature, &j->length, j->digest, sizeof j->digest) == 1;
		if (!j->ok)
			postern_explain(j->text, sizeof j->text);
		postern_finish(q, j);
	}
}

static postern_job *postern_collect(postern_queue *q) {
	postern_job *done;
	pthread_mutex_lock(&q->mutex);
	done = q->done;
	q->done = NULL;
	pthread_mutex_unlock(&q->mutex);
	return done;
}

static void postern_end(postern_queue *q) {
	pthread_mutex_lock(&q->mutex);
	q->ended = 1;
	pthread_cond_broadcast(&q->more);
	pthread_mutex_unlock(&q->mutex);
}

static void postern_free_queue(postern_queue *q) {
	pthread_cond_destroy(&q->more);
	pthread_mutex_destroy(&q->mutex);
	free(q);
}
*/
import "C"

import (
	"errors"
	"os"
	"runtime"
	"runtime/cgo"
	"sync"

	"golang.org/x/sys/unix"
)

// threads sign. Each stays inside C and takes jobs from a queue. If goroutines called
// OpenSSL themselves, the scheduler would give their processor to another thread after
// 20 µs of each signature, and look for such calls all the time.
type threads struct {
	queue   *C.postern_queue
	wake    *os.File // see postern_queue
	working sync.WaitGroup
	giving  sync.WaitGroup
}

// startThreads starts a number of threads.
func startThreads(number int) (*threads, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	t := &threads{queue: C.postern_new_queue(C.int(fd)), wake: os.NewFile(uintptr(fd), "eventfd")}
	if t.queue == nil {
		return nil, errors.Join(errors.New("no memory for a queue"), t.wake.Close())
	}
	// A key that is still used after close may look at the queue.
	runtime.AddCleanup(t, func(q *C.postern_queue) { C.postern_free_queue(q) }, t.queue)
	for range number {
		t.working.Go(func() { C.postern_work(t.queue) })
	}
	t.giving.Go(t.handOut)
	return t, nil
}

// close ends the threads after the jobs that wait.
func (t *threads) close() error {
	C.postern_end(t.queue)
	t.working.Wait()
	err := t.wake.Close()
	t.giving.Wait()
	return err
}

// handOut gives jobs that are done back to their owners until wake is closed. It also ends
// if wake cannot be read. The queue then takes no more jobs, so that none waits forever.
func (t *threads) handOut() {
	var count [8]byte
	for {
		if _, err := t.wake.Read(count[:]); err != nil {
			break
		}
		t.giveBack()
	}
	C.postern_end(t.queue)
	t.working.Wait()
	t.giveBack()
}

func (t *threads) giveBack() {
	for j := C.postern_collect(t.queue); j != nil; {
		next := j.next // the owner may submit j again at once
		cgo.Handle(j.owner).Value().(*job).done <- struct{}{}
		j = next
	}
}

// job is a job with its owner in Go.
type job struct {
	c    *C.postern_job
	done chan struct{} // has room for one
}

// errEnded is the error of a job that comes too late.
var errEnded = errors.New("the threads that sign have ended")

// sign waits until a thread has done a job.
func (t *threads) sign(j *job) error {
	if C.postern_submit(t.queue, j.c) != 1 {
		return errEnded
	}
	<-j.done
	if j.c.ok != 1 {
		return opensslError(&j.c.text)
	}
	return nil
}
