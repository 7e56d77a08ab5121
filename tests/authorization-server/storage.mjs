// In memory, without the limit of 1000 entries of oidc-provider's own adapter, which a load test exceeds.

export function createStorage(findClient) {
  const entries = new Map();
  const grants = new Map();
  let sweepAt = 10_000;

  const sweep = () => {
    const now = Date.now();
    for (const [key, { expiresAt }] of entries) if (expiresAt <= now) entries.delete(key);
    for (const [grantId, keys] of grants) {
      for (const key of keys) if (!entries.has(key)) keys.delete(key);
      if (keys.size === 0) grants.delete(grantId);
    }
    sweepAt = Math.max(10_000, entries.size * 2);
  };

  return (model) => ({
    async upsert(id, payload, expiresIn) {
      if (entries.size >= sweepAt) sweep();
      const key = `${model}:${id}`;
      entries.set(key, { payload, expiresAt: expiresIn === undefined ? Infinity : Date.now() + expiresIn * 1000 });
      if (payload.grantId) {
        if (!grants.has(payload.grantId)) grants.set(payload.grantId, new Set());
        grants.get(payload.grantId).add(key);
      }
    },
    async find(id) {
      if (model === 'Client') return findClient(id);
      const entry = entries.get(`${model}:${id}`);
      return entry && entry.expiresAt > Date.now() ? entry.payload : undefined;
    },
    async consume(id) {
      entries.get(`${model}:${id}`).payload.consumed = Math.floor(Date.now() / 1000);
    },
    async destroy(id) {
      entries.delete(`${model}:${id}`);
    },
    async revokeByGrantId(grantId) {
      for (const key of grants.get(grantId) ?? []) entries.delete(key);
      grants.delete(grantId);
    },
    // For sessions and device codes, which are not used here.
    async findByUid() {},
    async findByUserCode() {},
  });
}
