#ifndef GREET_H
#define GREET_H

#include <stddef.h>

/* Write a greeting for name into buffer; returns what snprintf returns. */
int greet(char *buffer, size_t size, const char *name);

#endif
