// Limits how much of the application's memory requests may take while they are read and answered. It knows no RxDB.

export class Room {
  #most;
  #free;
  #waiting = [];

  /** `bytes` in total. A request that alone takes more gets all of it. */
  constructor(bytes) {
    this.#most = bytes;
    this.#free = bytes;
  }

  /** Does some work that takes this many bytes, as soon as there is room for it: first come, first served. */
  async hold(bytes, work) {
    const taken = Math.min(bytes, this.#most);
    if (this.#waiting.length > 0 || taken > this.#free)
      await new Promise((admit) => this.#waiting.push({ taken, admit }));
    else this.#free -= taken;
    try {
      return await work();
    } finally {
      this.#free += taken;
      while (this.#waiting[0]?.taken <= this.#free) {
        const next = this.#waiting.shift();
        this.#free -= next.taken;
        next.admit();
      }
    }
  }
}
