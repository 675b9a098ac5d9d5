#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/evp.h>

// OpenSSL keeps errors for each thread: each function fetches its own before Go
// may go on in another thread.
static inline void postern_explain(char *text, size_t size) {
	unsigned long code = ERR_peek_last_error();
	const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);
	strncpy(text, reason == NULL ? "unknown error" : reason, size - 1);
	text[size - 1] = '\0';
	ERR_clear_error();
}

enum { postern_error_size = 256 };

// A job is a context of a key, with room for one signature at a time. It belongs to Go,
// or to one of the lists of a queue.
typedef struct postern_job {
	struct postern_job *next;
	EVP_PKEY_CTX *ctx;
	uintptr_t owner; // a Go handle
	unsigned char digest[32];
	unsigned char *signature;
	size_t length, room; // of signature
	int ok;
	char text[postern_error_size]; // the error unless ok
} postern_job;
