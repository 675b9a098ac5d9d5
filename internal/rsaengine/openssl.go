//go:build openssl && cgo

package rsaengine

/*
#cgo LDFLAGS: -lcrypto
#include <openssl/crypto.h>
#include <openssl/opensslv.h>
#include <openssl/rsa.h>
#include "job.h"

#if OPENSSL_VERSION_MAJOR < 3
#error "OpenSSL 3 is needed"
#endif

static int postern_open(char *text, size_t size) {
	if (OPENSSL_version_major() < 3) {
		strncpy(text, "libcrypto is older than 3.0", size - 1);
		text[size - 1] = '\0';
		return 0;
	}
	if (OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_LOAD_CONFIG, NULL) != 1) {
		postern_explain(text, size);
		return 0;
	}
	return 1;
}

static EVP_PKEY *postern_load(const unsigned char *der, long length, char *text, size_t size) {
	EVP_PKEY *key;
	ERR_clear_error();
	key = d2i_PrivateKey(EVP_PKEY_RSA, NULL, &der, length);
	if (key == NULL)
		postern_explain(text, size);
	return key;
}

static void postern_free_job(postern_job *j) {
	EVP_PKEY_CTX_free(j->ctx);
	free(j->signature);
	free(j);
}

static postern_job *postern_new_job(EVP_PKEY *key, size_t room, char *text, size_t size) {
	postern_job *j = calloc(1, sizeof *j);
	if (j == NULL) {
		strncpy(text, "no memory for a context", size - 1);
		return NULL;
	}
	ERR_clear_error();
	j->room = room;
	if ((j->signature = malloc(j->room)) != NULL
		&& (j->ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL)) != NULL
		&& EVP_PKEY_sign_init(j->ctx) == 1
		&& EVP_PKEY_CTX_set_rsa_padding(j->ctx, RSA_PKCS1_PADDING) == 1
		&& EVP_PKEY_CTX_set_signature_md(j->ctx, EVP_sha256()) == 1)
		return j;
	postern_explain(text, size);
	postern_free_job(j);
	return NULL;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/cgo"
	"sync"
	"sync/atomic"
	"unsafe"
)

const builtIn = true

// errorSize is the space for one error text of OpenSSL.
const errorSize = C.postern_error_size

// libcrypto is the library of OpenSSL.
type libcrypto struct {
	threads *threads
	loaded  *atomic.Int64 // keys that have not been freed
}

func openLibrary(threads int) (library, string, error) {
	var text [errorSize]C.char
	if C.postern_open(&text[0], errorSize) != 1 {
		return nil, "", opensslError(&text)
	}
	t, err := startThreads(threads)
	return libcrypto{t, new(atomic.Int64)}, C.GoString(C.OpenSSL_version(C.OPENSSL_VERSION)) + tuned(), err
}

func (l libcrypto) close() error { return l.threads.close() }

// evpKey is a key inside libcrypto.
type evpKey struct {
	*handles
	threads *threads
}

// handles are a key and the jobs that are not used now. To prepare a job for each
// signature would cost several microseconds. There are never more than signatures were
// made at once.
type handles struct {
	key *C.EVP_PKEY

	mu   sync.Mutex
	idle []*job
}

func (l libcrypto) load(pkcs1 []byte) (native, error) {
	var text [errorSize]C.char
	key := C.postern_load((*C.uchar)(unsafe.SliceData(pkcs1)), C.long(len(pkcs1)), &text[0], errorSize)
	if key == nil {
		return nil, opensslError(&text)
	}
	k := &evpKey{&handles{key: key}, l.threads}
	l.loaded.Add(1)
	runtime.AddCleanup(k, func(h *handles) {
		h.free()
		l.loaded.Add(-1)
	}, k.handles)
	return k, nil
}

func (h *handles) free() {
	for _, j := range h.idle {
		j.free()
	}
	C.EVP_PKEY_free(h.key)
}

func (j *job) free() {
	cgo.Handle(j.c.owner).Delete()
	C.postern_free_job(j.c)
}

// take returns an idle job or a new one.
func (h *handles) take(size int) (*job, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last := len(h.idle) - 1; last >= 0 {
		j := h.idle[last]
		h.idle = h.idle[:last]
		return j, nil
	}
	var text [errorSize]C.char
	inner := C.postern_new_job(h.key, C.size_t(size), &text[0], errorSize)
	if inner == nil {
		return nil, opensslError(&text)
	}
	j := &job{inner, make(chan struct{}, 1)}
	inner.owner = C.uintptr_t(cgo.NewHandle(j))
	return j, nil
}

func (h *handles) put(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idle = append(h.idle, j)
}

// sign returns the signature over a SHA-256 digest. size is the size of the modulus in
// octets. A job that failed is not used again.
func (k *evpKey) sign(digest []byte, size int) ([]byte, error) {
	defer runtime.KeepAlive(k)
	j, err := k.take(size)
	if err != nil {
		return nil, err
	}
	if len(digest) != len(j.c.digest) {
		k.put(j)
		return nil, fmt.Errorf("OpenSSL: a digest of %d octets", len(digest))
	}
	copy(unsafe.Slice((*byte)(&j.c.digest[0]), len(j.c.digest)), digest)
	if err := k.threads.sign(j); err != nil {
		j.free()
		return nil, err
	}
	signature := C.GoBytes(unsafe.Pointer(j.c.signature), C.int(j.c.length))
	k.put(j)
	return signature, nil
}

func opensslError(text *[errorSize]C.char) error {
	return errors.New("OpenSSL: " + C.GoString(&text[0]))
}
