/**
 * What an nftables dataplane tells about its work.
 *
 * @module
 */

/** Of one family. */
export interface NftablesMetrics {
  /** A transaction was refused, or did not come through. */
  syncFailed(): void;
  /** So was one that only takes away what nothing refers to any more. */
  cleanupFailed(): void;
}
