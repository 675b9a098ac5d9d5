-- The tables of iRedMail with the columns that are asked for, and a few rows for the
-- tests.
CREATE DATABASE vmail CHARACTER SET utf8mb4;
USE vmail;
CREATE TABLE domain (domain VARCHAR(255) PRIMARY KEY, backupmx TINYINT NOT NULL DEFAULT 0, active TINYINT NOT NULL DEFAULT 1) COLLATE utf8mb4_general_ci;
CREATE TABLE mailbox (username VARCHAR(255) PRIMARY KEY, domain VARCHAR(255) NOT NULL, enablesmtp TINYINT NOT NULL DEFAULT 1, active TINYINT NOT NULL DEFAULT 1) COLLATE utf8mb4_general_ci;
CREATE TABLE alias_domain (alias_domain VARCHAR(255) PRIMARY KEY, target_domain VARCHAR(255) NOT NULL, active TINYINT NOT NULL DEFAULT 1) COLLATE utf8mb4_general_ci;
CREATE TABLE forwardings (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, address VARCHAR(255) NOT NULL, forwarding VARCHAR(255) NOT NULL, domain VARCHAR(255) NOT NULL, dest_domain VARCHAR(255) NOT NULL, is_list TINYINT NOT NULL DEFAULT 0, is_forwarding TINYINT NOT NULL DEFAULT 0, is_alias TINYINT NOT NULL DEFAULT 0, active TINYINT NOT NULL DEFAULT 1, UNIQUE (address, forwarding)) COLLATE utf8mb4_general_ci;
INSERT INTO domain (domain, backupmx) VALUES ('ired.example', 0), ('backup.example', 1);
INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('ired.test.example', 'ired.example');
INSERT INTO mailbox (username, domain, active) VALUES ('ann@ired.example', 'ired.example', 1), ('bob@ired.example', 'ired.example', 1), ('gone@ired.example', 'ired.example', 0);
INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_forwarding) VALUES ('ann@ired.example', 'ann@ired.example', 'ired.example', 'ired.example', 1), ('bob@ired.example', 'bob@ired.example', 'ired.example', 'ired.example', 1), ('ann@ired.example', 'bob@ired.example', 'ired.example', 'ired.example', 1);
INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_alias) VALUES ('ann.smith@ired.example', 'ann@ired.example', 'ired.example', 'ired.example', 1);
INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_list) VALUES ('team@ired.example', 'ann@ired.example', 'ired.example', 'ired.example', 1), ('team@ired.example', 'bob@ired.example', 'ired.example', 'ired.example', 1);
CREATE USER vmail@127.0.0.1 IDENTIFIED BY 'change-me';
GRANT SELECT ON vmail.* TO vmail@127.0.0.1;
