#include <stdio.h>

static int twice(int number)
{
    return 2 * number;
}

int main(int count, char **words)
{
    (void)words;
    printf("%d\n", twice(count));
    return 0;
}
