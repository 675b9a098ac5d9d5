-- The shape of the two tables, with a few rows for the tests.
CREATE DATABASE cacertusers CHARACTER SET utf8mb4;
USE cacertusers;
CREATE TABLE user (username VARCHAR(64) PRIMARY KEY, password VARCHAR(255) NOT NULL, locked TINYINT NOT NULL DEFAULT 0);
CREATE TABLE aliases (alias VARCHAR(255) NOT NULL, username VARCHAR(64) NOT NULL, active TINYINT NOT NULL DEFAULT 1, PRIMARY KEY (alias, username));
INSERT INTO user (username, password) VALUES ('ann', 'x'), ('bob', 'x'), ('o''hara', 'x');
INSERT INTO aliases (alias, username, active) VALUES ('pr@cacert.example', 'ann', 1), ('board@cacert.example', 'ann', 1), ('board@cacert.example', 'bob', 1), ('old@cacert.example', 'bob', 0), ('@events.example', 'bob', 1);
CREATE USER postfix@localhost IDENTIFIED BY 'change-me';
GRANT SELECT ON cacertusers.* TO postfix@localhost;
