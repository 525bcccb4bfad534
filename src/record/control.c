#include "record/control.h"

#include <stdio.h>
#include <string.h>

#include "platform/platform.h"
#include "record/sample.h"

pmt__order
pmt__order_parse(const char *text)
{
    static const char key[] = "sample=";
    const pmt__order none = {PMT_ORDER_NONE, 0};
    if (strncmp(text, key, sizeof key - 1) != 0) {
        return none;
    }
    const char *at = text + sizeof key - 1;
    size_t length = strcspn(at, "\n");
    if (at[length] == '\n' && at[length + 1] != '\0') {
        return none;
    }
    if (length == 3 && strncmp(at, "off", 3) == 0) {
        return (pmt__order){PMT_ORDER_OFF, 0};
    }
    if (length == 2 && strncmp(at, "on", 2) == 0) {
        return (pmt__order){PMT_ORDER_ON, 0};
    }
    uint64_t mean = 0;
    for (size_t i = 0; i < length; i++) {
        if (at[i] < '0' || at[i] > '9' || length > 13) {
            return none;
        }
        mean = mean * 10 + (uint64_t)(at[i] - '0');
    }
    if (mean < PMT_SAMPLE_MEAN_MIN || mean > PMT_SAMPLE_MEAN_MAX) {
        return none;
    }
    return (pmt__order){PMT_ORDER_MEAN, mean};
}

pmt__order
pmt__control_look(pmt__control *self, const char *path)
{
    static char name[4096 + sizeof PMT_CONTROL_SUFFIX];
    char text[sizeof self->seen];
    int n = snprintf(name, sizeof name, "%s" PMT_CONTROL_SUFFIX, path);
    if (n < 0 || (size_t)n >= sizeof name || pmt__file_read_private(name, text, sizeof text) <= 0
        || strcmp(text, self->seen) == 0) {
        return (pmt__order){PMT_ORDER_NONE, 0};
    }
    strcpy(self->seen, text);
    return pmt__order_parse(text);
}
