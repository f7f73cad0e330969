-- Version 1. The JSON of a row is what the crate's types write; columns that people ask for are views of it.
CREATE TABLE person (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE idea (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE link (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE run (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE advice (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE decision (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, run INTEGER NOT NULL, json TEXT NOT NULL);
CREATE INDEX decision_of_run ON decision (run, id);
CREATE TRIGGER decision_unchanged BEFORE UPDATE ON decision BEGIN SELECT raise(ABORT, 'decisions stay as they were made'); END;
CREATE TRIGGER decision_undeleted BEFORE DELETE ON decision BEGIN SELECT raise(ABORT, 'decisions stay as they were made'); END;
CREATE VIEW people AS SELECT id, json ->> 'name' AS name FROM person;
CREATE VIEW ideas AS SELECT id, json ->> 'sentence' AS sentence, json ->> 'status' AS status FROM idea;
CREATE VIEW runs AS
    SELECT id, json ->> 'idea' AS idea, json ->> 'command' AS command, json ->> 'chips' AS chips, json ->> 'state' AS state,
           json ->> 'attained_chip_s' AS chip_s
    FROM run;
