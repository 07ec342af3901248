package lakehouse;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Arrays;

/** Answers each line "begin finish" with what FirstSeen says of it and what it knows then. */
public final class FirstSeenLines {
  public static void main(String[] arguments) throws IOException {
    FirstSeen function = new FirstSeen();
    FirstSeen.Ranges seen = function.createAccumulator();
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      if (line.equals("anew")) {
        seen = function.createAccumulator();
        continue;
      }
      String[] parts = line.split(" ");
      function.accumulate(seen, Long.valueOf(parts[0]), Long.valueOf(parts[1]));
      System.out.println(function.getValue(seen) + " " + Arrays.toString(seen.bounds));
      System.out.flush();
    }
  }
}
