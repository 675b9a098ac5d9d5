//go:build openssl && cgo

package rsaengine

/*
#cgo LDFLAGS: -lcrypto
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

static int postern_sign(EVP_PKEY *key, const unsigned char *digest, size_t digest_length,
		unsigned char *signature, size_t *length, char *text, size_t size) {
	EVP_PKEY_CTX *ctx;
	int ok;
	ERR_clear_error();
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	ok = ctx != NULL
		&& EVP_PKEY_sign_init(ctx) == 1
		&& EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1
		&& EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1
		&& EVP_PKEY_sign(ctx, signature, length, digest, digest_length) == 1;
	if (!ok)
		postern_explain(text, size);
	EVP_PKEY_CTX_free(ctx);
	return ok;
}
*/
import "C"

import (
	"errors"
	"runtime"
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
	return libcrypto{new(atomic.Int64)}, C.GoString(C.OpenSSL_version(C.OPENSSL_VERSION)), nil
}

// evpKey is a key inside libcrypto.
type evpKey struct{ key *C.EVP_PKEY }

func (l libcrypto) load(pkcs1 []byte) (native, error) {
	var text [errorSize]C.char
	key := C.postern_load((*C.uchar)(unsafe.SliceData(pkcs1)), C.long(len(pkcs1)), &text[0], errorSize)
	if key == nil {
		return nil, opensslError(&text)
	}
	k := &evpKey{key}
	l.loaded.Add(1)
	runtime.AddCleanup(k, func(key *C.EVP_PKEY) {
		C.EVP_PKEY_free(key)
		l.loaded.Add(-1)
	}, key)
	return k, nil
}

// sign returns the signature over a SHA-256 digest. size is the size of the
// modulus in octets.
func (k *evpKey) sign(digest []byte, size int) ([]byte, error) {
	var text [errorSize]C.char
	signature := make([]byte, size)
	length := C.size_t(size)
	ok := C.postern_sign(k.key, (*C.uchar)(unsafe.SliceData(digest)), C.size_t(len(digest)),
		(*C.uchar)(unsafe.SliceData(signature)), &length, &text[0], errorSize)
	runtime.KeepAlive(k)
	if ok != 1 {
		return nil, opensslError(&text)
	}
	return signature[:length], nil
}

func opensslError(text *[errorSize]C.char) error {
	return errors.New("OpenSSL: " + C.GoString(&text[0]))
}
