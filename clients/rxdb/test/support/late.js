// A storage whose next bulk write is held back, as a slow disk holds one back beside others.

/** `hold()` catches the next write; it resolves to a function that lets it through. */
export function withholding(storage) {
  let caught;
  const hold = () => new Promise((resolve) => (caught = resolve));
  const createStorageInstance = async (params) => {
    const instance = await storage.createStorageInstance(params);
    const write = instance.bulkWrite.bind(instance);
    instance.bulkWrite = async (rows, context) => {
      const tell = caught;
      caught = undefined;
      if (tell) await new Promise((release) => tell(release));
      return write(rows, context);
    };
    return instance;
  };
  return { storage: { ...storage, createStorageInstance }, hold };
}
