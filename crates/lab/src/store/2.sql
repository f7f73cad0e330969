-- Version 2. People may say what they would like to be asked about.
DROP VIEW people;
CREATE VIEW people AS SELECT id, json ->> 'name' AS name, ifnull(json ->> 'interests', '') AS interests FROM person;
