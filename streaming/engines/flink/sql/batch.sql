-- How a batch job runs: in one thread, which leaves the others to the stream. Days are UTC's.

SET 'execution.runtime-mode' = 'batch';

SET 'pipeline.name' = ${job_name};

SET 'parallelism.default' = '1';

SET 'table.local-time-zone' = 'UTC';

-- Somebody waits for it: what fails again and again is to be said. The stream's job tries for ever.
SET 'restart-strategy.type' = 'fixed-delay';

SET 'restart-strategy.fixed-delay.attempts' = '3';

SET 'restart-strategy.fixed-delay.delay' = '2 s';
