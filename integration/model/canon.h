/* States that differ only in the names of replicas, values and versions are one state: canon renames them, so that
   spin keeps one of each. Any renaming is sound; a poor one only keeps more states. Part of spin's verifier. */

#define VALUES ((int) sizeof ((State *) 0)->phase)
#define REPLICAS ((int) (sizeof ((State *) 0)->R / sizeof ((State *) 0)->R[0]))

static void swapid(int a, int b, int id, int *out) { *out = id == a+1 ? b+1 : id == b+1 ? a+1 : id; }
#define SWAPID(f) do { int x; swapid(a, b, f, &x); f = x; } while (0)
static void swapreplicas(int a, int b) {
	struct Replica t = now.R[a]; now.R[a] = now.R[b]; now.R[b] = t;
	SWAPID(now.lock); SWAPID(now.during); SWAPID(now.r.cutby); SWAPID(now.r.granted); SWAPID(now.r.finished);
#ifdef FAILOVER
	SWAPID(now.s.cutby); SWAPID(now.s.granted); SWAPID(now.s.finished);
#endif
}
static unsigned long key(int i) {
	struct Replica *p = &now.R[i];
	unsigned long k = p->pc;
#define KEY(bits, f) k = k << bits | (f)
	KEY(5, p->ver); KEY(5, p->want); KEY(3, now.phase[p->val]); KEY(3, now.phase[p->got]); KEY(3, now.phase[p->victim]);
	KEY(1, p->val == now.r.val); KEY(1, p->doubt); KEY(2, p->good); KEY(1, p->force); KEY(1, p->late); KEY(1, p->settle); KEY(1, p->pend); KEY(1, p->stale);
	KEY(1, now.lock == i+1); KEY(1, now.r.cutby == i+1); KEY(1, now.r.granted == i+1); KEY(1, now.r.finished == i+1);
	KEY(1, now.exempt[p->val]); KEY(1, now.overdue[p->val]);
#ifdef WITHDRAW
	KEY(1, p->early); KEY(1, p->saw); KEY(1, p->end); KEY(1, now.taken[p->val]); KEY(1, now.taken[p->got]);
#endif
#ifdef FAILOVER
	KEY(1, now.s.cutby == i+1); KEY(1, now.s.granted == i+1); KEY(1, now.s.finished == i+1); KEY(1, p->val == now.s.val);
#endif
	return k;
}
static unsigned char slot[VALUES], nslots;
#define VALUE(f) do { if (f) { if (!slot[f]) slot[f] = ++nslots; f = slot[f]; } } while (0)
static unsigned char rank[32], used[32];
#define USED(f) used[f] = 1
#define RANK(f) f = rank[f]
static void canon(void) {
	int i, n;
	unsigned char phase[VALUES], overdue[VALUES], exempt[VALUES];
	if (!now.r.val) now.r.cut = 0;
	if (!now.r.doubt) now.r.old = 0;
	if (!now.r.cutby) { now.r.pcut = 0; now.r.pdoubt = 0; now.r.pold = 0; }
	if (now.during != now.lock) now.during = 0;
	if (key(0) > key(1)) swapreplicas(0, 1);
	if (key(1) > key(2)) swapreplicas(1, 2);
	if (key(0) > key(1)) swapreplicas(0, 1);

	memset(slot, 0, sizeof slot); nslots = 0;
	for (i = 0; i < VALUES; i++) { phase[i] = now.phase[i]; overdue[i] = now.overdue[i]; exempt[i] = now.exempt[i]; }
#ifdef WITHDRAW
	unsigned char taken[VALUES];
	for (i = 0; i < VALUES; i++) { taken[i] = now.taken[i]; now.taken[i] = 0; }
#endif
	VALUE(now.newest); VALUE(now.r.val);
#ifdef FAILOVER
	VALUE(now.s.val);
#endif
	for (i = 0; i < REPLICAS; i++) { VALUE(now.R[i].val); VALUE(now.R[i].got); VALUE(now.R[i].victim); }
	for (i = 0; i < VALUES; i++) { now.phase[i] = 0; now.overdue[i] = 0; now.exempt[i] = 0; }
	for (i = 1; i < VALUES; i++) if (slot[i]) {
		n = slot[i]; now.phase[n] = phase[i]; now.exempt[n] = exempt[i]; now.overdue[n] = overdue[i];
#ifdef WITHDRAW
		now.taken[n] = taken[i];
#endif
	}

	memset(used, 0, sizeof used);
	USED(now.r.ver); USED(now.due); USED(now.vmax);
#ifdef WITHDRAW
	USED(now.mark);
#endif
#ifdef FAILOVER
	USED(now.s.ver);
#endif
	for (i = 0; i < REPLICAS; i++) { USED(now.R[i].ver); USED(now.R[i].want); }
	for (i = 1, n = 0; i < 32; i++) if (used[i]) rank[i] = ++n;
	RANK(now.r.ver); RANK(now.due); RANK(now.vmax);
#ifdef WITHDRAW
	RANK(now.mark);
#endif
#ifdef FAILOVER
	RANK(now.s.ver);
#endif
	for (i = 0; i < REPLICAS; i++) { RANK(now.R[i].ver); RANK(now.R[i].want); }
}
