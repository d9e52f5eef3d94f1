#include <stdio.h>

int main(void)
{
    printf("%d\n", 6 * 9);
    return 0;
}
