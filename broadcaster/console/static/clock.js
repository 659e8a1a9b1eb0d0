/** The broadcaster's clock, as far as an answer's way there and back lets it be known: a countdown must not go by a wrong PC. */

export class ServerClock {
  #ahead = 0;
  #error = Infinity;
  #at = 0;

  /** Wall ms at the broadcaster. */
  now() {
    return Date.now() + this.#ahead;
  }

  /** The broadcaster said `said` between the local `asked` and `answered`. The tightest of the last minutes counts. */
  heard(said, asked, answered) {
    const error = (answered - asked) / 2;
    if (error > this.#error && answered - this.#at < 300_000) return;
    this.#ahead = said - (asked + answered) / 2;
    this.#error = error;
    this.#at = answered;
  }
}
