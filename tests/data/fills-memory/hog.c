#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP_BYTES (64UL << 20)

int main(void)
{
    for (;;) {
        char *block = malloc(STEP_BYTES);
        if (!block) {
            perror("malloc");
            return 1;
        }
        memset(block, 1, STEP_BYTES);
    }
}
