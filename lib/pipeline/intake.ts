/** The entrance of the pipeline: counts each message and puts it into the inbox, or drops it. */

import { FloodGuard } from "../common/flood_guard.ts";
import { log } from "../common/log.ts";
import { DEFAULT_TUNING, type Tuning } from "../config/tuning.ts";
import type { Delivery } from "../message/delivery.ts";
import { shortenPayload } from "../message/payload_text.ts";
import type { Inbox } from "./inbox.ts";
import type { Statistics } from "./statistics.ts";

export interface IntakeOptions {
  readonly inbox: Inbox;
  readonly statistics: Statistics;
  readonly tuning?: Pick<Tuning, "floodIntervalMs">;
}

/** Accepts messages from its construction; call `flush` at the end. */
export class Intake {
  readonly #inbox: Inbox;
  readonly #statistics: Statistics;
  readonly #drops: FloodGuard;

  constructor({ inbox, statistics, tuning = DEFAULT_TUNING }: IntakeOptions) {
    this.#inbox = inbox;
    this.#statistics = statistics;
    this.#drops = new FloodGuard("dropped QoS 0 messages", tuning);
  }

  /** Accepts a message. Only a message of QoS 0 may be dropped. */
  accept(delivery: Delivery): void {
    this.#statistics.received++;
    if (log.isDebug()) {
      log.debug(`Received on '${delivery.topic}': ${shortenPayload(delivery.payload)}`);
    }
    if (this.#inbox.push(delivery)) return;
    this.#statistics.outcomes.dropped++;
    this.#drops.warning(() =>
      `Dropped a QoS 0 message on '${delivery.topic}': neither the database nor the spool keeps ` +
      "up, and the broker would not send it again."
    );
  }

  /** The message repeats one that is still in flight, and adds nothing. */
  acceptRedelivery(): void {
    this.#statistics.redelivered++;
  }

  /** Logs how many lines about dropped messages were suppressed. */
  flush(): void {
    this.#drops.flush();
  }
}
