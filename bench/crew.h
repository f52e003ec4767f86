/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CREW_H
#define CREW_H

/* For bench_init(): does not return in a process that crew.c has started. */
void crew_main(int argc, char **argv);
/* This process, and those it starts, stay on the first CPU. */
void crew_pin(void);

#endif
