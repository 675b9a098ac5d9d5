//go:build openssl && cgo

package rsaengine

/*
#cgo LDFLAGS: -lcrypto
#cgo noescape postern_sign
#cgo nocallback postern_sign
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <openssl/rsa.h>

#if OPENSSL_VERSION_MAJOR < 3
#error "OpenSSL 3 is needed"
#endif

// OpenSSL keeps errors for each thread: each function fetches its own before Go
// may go on in another thread.
static void postern_explain(char *text, size_t size) {
	unsigned long code = ERR_peek_last_error();
	const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);
	strncpy(text, reason == NULL ? "unknown error" : reason, size - 1);
	text[size - 1] = '\0';
	ERR_clear_error();
}

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

// A context is used by one thread at a time.
static EVP_PKEY_CTX *postern_prepare(EVP_PKEY *key, char *text, size_t size) {
	EVP_PKEY_CTX *ctx;
	ERR_clear_error();
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	if (ctx != NULL
		&& EVP_PKEY_sign_init(ctx) == 1
		&& EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1
		&& EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1)
		return ctx;
	postern_explain(text, size);
	EVP_PKEY_CTX_free(ctx);
	return NULL;
}

static int postern_sign(EVP_PKEY_CTX *ctx, const unsigned char *digest, size_t digest_length,
		unsigned char *signature, size_t *length, char *text, size_t size) {
	ERR_clear_error();
	if (EVP_PKEY_sign(ctx, signature, length, digest, digest_length) == 1)
		return 1;
	postern_explain(text, size);
	return 0;
}
*/
import "C"

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

const builtIn = true

// errorSize is the space for one error text of OpenSSL.
const errorSize = 256

// libcrypto is the library of OpenSSL.
type libcrypto struct {
	loaded *atomic.Int64 // keys that have not been freed
}

func openLibrary() (library, string, error) {
	var text [errorSize]C.char
	if C.postern_open(&text[0], errorSize) != 1 {
		return nil, "", opensslError(&text)
	}
	return libcrypto{new(atomic.Int64)}, C.GoString(C.OpenSSL_version(C.OPENSSL_VERSION)) + tuned(), nil
}

// evpKey is a key inside libcrypto.
type evpKey struct{ *handles }

// handles are a key and the contexts that no thread uses now. To prepare a context for
// each signature would cost several microseconds. There are never more than threads have
// signed at once.
type handles struct {
	key *C.EVP_PKEY

	mu   sync.Mutex
	idle []*C.EVP_PKEY_CTX
}

func (l libcrypto) load(pkcs1 []byte) (native, error) {
	var text [errorSize]C.char
	key := C.postern_load((*C.uchar)(unsafe.SliceData(pkcs1)), C.long(len(pkcs1)), &text[0], errorSize)
	if key == nil {
		return nil, opensslError(&text)
	}
	k := &evpKey{&handles{key: key}}
	l.loaded.Add(1)
	runtime.AddCleanup(k, func(h *handles) {
		h.free()
		l.loaded.Add(-1)
	}, k.handles)
	return k, nil
}

func (h *handles) free() {
	for _, ctx := range h.idle {
		C.EVP_PKEY_CTX_free(ctx)
	}
	C.EVP_PKEY_free(h.key)
}

// take returns an idle context or a new one.
func (h *handles) take() (*C.EVP_PKEY_CTX, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last := len(h.idle) - 1; last >= 0 {
		ctx := h.idle[last]
		h.idle = h.idle[:last]
		return ctx, nil
	}
	var text [errorSize]C.char
	ctx := C.postern_prepare(h.key, &text[0], errorSize)
	if ctx == nil {
		return nil, opensslError(&text)
	}
	return ctx, nil
}

func (h *handles) put(ctx *C.EVP_PKEY_CTX) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idle = append(h.idle, ctx)
}

// sign returns the signature over a SHA-256 digest. size is the size of the
// modulus in octets. A context that failed is not used again.
func (k *evpKey) sign(digest []byte, size int) ([]byte, error) {
	ctx, err := k.take()
	if err != nil {
		return nil, err
	}
	var text [errorSize]C.char
	signature := make([]byte, size)
	length := C.size_t(size)
	ok := C.postern_sign(ctx, (*C.uchar)(unsafe.SliceData(digest)), C.size_t(len(digest)),
		(*C.uchar)(unsafe.SliceData(signature)), &length, &text[0], errorSize)
	if ok != 1 {
		C.EVP_PKEY_CTX_free(ctx)
		err = opensslError(&text)
	} else {
		k.put(ctx)
	}
	runtime.KeepAlive(k)
	if err != nil {
		return nil, err
	}
	return signature[:length], nil
}

func opensslError(text *[errorSize]C.char) error {
	return errors.New("OpenSSL: " + C.GoString(&text[0]))
}
