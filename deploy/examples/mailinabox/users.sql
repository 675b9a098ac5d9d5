-- users.sqlite as Mail-in-a-Box makes it, with a few rows for the tests.
CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT NOT NULL UNIQUE, password TEXT NOT NULL, extra, privileges TEXT NOT NULL DEFAULT '', quota TEXT NOT NULL DEFAULT '0');
CREATE TABLE aliases (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL UNIQUE, destination TEXT NOT NULL, permitted_senders TEXT);
CREATE TABLE mfa (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL, type TEXT NOT NULL, secret TEXT NOT NULL, mru_token TEXT, label TEXT, FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE);
CREATE TABLE auto_aliases (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL UNIQUE, destination TEXT NOT NULL, permitted_senders TEXT);
INSERT INTO users (email, password) VALUES ('ann@box.example', 'x'), ('bob@box.example', 'x');
INSERT INTO aliases (source, destination, permitted_senders) VALUES
	('info@box.example', 'ann@box.example,bob@box.example', NULL),
	('press@box.example', 'ann@box.example,bob@box.example', 'bob@box.example'),
	('ann@box.example', 'bob@box.example', NULL),
	('@all.example', 'bob@box.example', NULL),
	('chain@box.example', 'info@box.example', NULL);
