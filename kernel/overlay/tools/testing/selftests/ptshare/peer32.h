/* SPDX-License-Identifier: GPL-2.0 */
/* What mixed.c and peer32.c say to each other; no member is as long as a long. */
#ifndef PEER32_H
#define PEER32_H

enum peer32_what {
	PEER32_LOAD,
	PEER32_STORE,
	PEER32_STORE_IN_CHILD,
	PEER32_PROTECT,		/* val: PROT_... */
	PEER32_UNMAP,
	PEER32_GROW,		/* by len, moving */
};

struct peer32_order {
	unsigned int what, off, len;
	int val;		/* stored, or loaded */
	int ret;		/* of the call, or the signal that was raised */
};

#endif /* PEER32_H */
