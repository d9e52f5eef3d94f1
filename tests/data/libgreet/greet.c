#include "greet.h"

const char *greet(void)
{
    return "greetings from the library";
}
