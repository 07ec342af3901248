-- What a job starts from: the savepoint or checkpoint of the one before. It stays as it is.

SET 'execution.state-recovery.path' = ${path};

SET 'execution.state-recovery.claim-mode' = 'NO_CLAIM';
