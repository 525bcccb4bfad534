/* SANITIZED: whether a test runs under a sanitizer, with another malloc, areas of terabytes, and slowly. */
#ifndef PMT_TESTS_SANITIZED_H
#define PMT_TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#endif
