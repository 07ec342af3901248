package lakehouse;

import java.util.Arrays;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.functions.AggregateFunction;

/**
 * Tells of each row whether it is the first with its number: {@code first_seen(begin, finish) OVER (PARTITION
 * BY … ORDER BY …)}, where the row stands for the numbers from {@code begin} to before {@code finish}.
 *
 * <p>What was seen is kept as ranges. Numbers that follow one another are one range, so a market's worth of
 * them takes a few bytes for ever, and each hole 16 more. (Flink's own deduplication keeps every number in
 * RocksDB, and forgets it after a time.)
 */
public final class FirstSeen extends AggregateFunction<Boolean, FirstSeen.Ranges> {
  /** What was seen of one key. */
  public static final class Ranges {
    /** Begin and end (exclusive) of each range, ascending; neither do they overlap nor touch. */
    public @DataTypeHint("ARRAY<BIGINT NOT NULL> NOT NULL") long[] bounds = {};

    /** Whether the newest row was the first with its number. */
    public @DataTypeHint("BOOLEAN NOT NULL") boolean wasNew;
  }

  @Override
  public Ranges createAccumulator() {
    return new Ranges();
  }

  public void accumulate(Ranges seen, Long begin, Long finish) {
    if (begin == null || finish == null || begin >= finish) {
      throw new IllegalArgumentException("no numbers: from " + begin + " to before " + finish);
    }
    seen.wasNew = add(seen, begin, finish);
  }

  @Override
  public Boolean getValue(Ranges seen) {
    return seen.wasNew;
  }

  /** Adds a range and tells whether any of it was missing. */
  static boolean add(Ranges seen, long begin, long finish) {
    long[] bounds = seen.bounds;
    int last = bounds.length - 1;
    if (last > 0 && bounds[last] == begin) { // what comes next, as nearly always
      bounds[last] = finish;
      return true;
    }
    int from = place(bounds, begin);
    int to = from;
    while (to < bounds.length && bounds[to] <= finish) {
      to += 2;
    }
    // The ranges in [from, to) touch the new one: all of them become one.
    if (to == from + 2 && bounds[from] <= begin && finish <= bounds[from + 1]) {
      return false;
    }
    long[] joined = new long[bounds.length - (to - from) + 2];
    System.arraycopy(bounds, 0, joined, 0, from);
    joined[from] = to > from ? Math.min(begin, bounds[from]) : begin;
    joined[from + 1] = to > from ? Math.max(finish, bounds[to - 1]) : finish;
    System.arraycopy(bounds, to, joined, from + 2, bounds.length - to);
    seen.bounds = joined;
    return true;
  }

  /** Returns where the first range begins that ends at {@code begin} or later. */
  private static int place(long[] bounds, long begin) {
    int found = Arrays.binarySearch(bounds, begin);
    int at = found < 0 ? -found - 1 : found;
    return at & ~1; // an end belongs to its range, whose begin is before it
  }
}
