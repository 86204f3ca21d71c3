-- A queue's database as trimta wrote it when PRAGMA user_version was 1.
BEGIN TRANSACTION;
CREATE TABLE contents (                     -- apart, so that listing messages does not read past them
    message     INTEGER PRIMARY KEY REFERENCES messages (seq) ON DELETE CASCADE,
    data        BLOB NOT NULL
);
INSERT INTO "contents" VALUES(1,X'5375626A6563743A20706C61696E0A0A68690A');
INSERT INTO "contents" VALUES(2,X'5375626A6563743A2072657475726E0A0A68690A');
INSERT INTO "contents" VALUES(3,X'5375626A6563743A2068656C6472657475726E0A0A68690A');
INSERT INTO "contents" VALUES(4,X'5375626A6563743A206E6F746966790A0A68690A');
INSERT INTO "contents" VALUES(5,X'5375626A6563743A20746F6C640A0A68690A');
INSERT INTO "contents" VALUES(6,X'5375626A6563743A206561726C790A0A68690A');
INSERT INTO "contents" VALUES(7,X'5375626A6563743A206E6F626F64790A0A68690A');
INSERT INTO "contents" VALUES(8,X'5375626A6563743A206E6F626F647972657475726E0A0A68690A');
INSERT INTO "contents" VALUES(9,X'5375626A6563743A20756E74696C0A0A68690A');
CREATE TABLE destinations (
    next_hop    TEXT PRIMARY KEY,
    due         REAL NOT NULL,              -- the least of what its queued envelopes are due at
    failed      REAL NOT NULL,              -- when it was found unusable, and until when what waited then is not
    not_before  REAL NOT NULL               -- tried; who comes later has a first try coming, at once
) WITHOUT ROWID;
INSERT INTO "destinations" VALUES('x.test',1700000030.0,1700000000.0,1700000030.0);
INSERT INTO "destinations" VALUES('y.test',1700000000.0,0.0,0.0);
CREATE TABLE envelopes (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    message     INTEGER NOT NULL REFERENCES messages (seq),
    number      INTEGER NOT NULL,
    domain      TEXT NOT NULL,
    next_hop    TEXT NOT NULL,
    state       TEXT NOT NULL,
    hold_reason TEXT NOT NULL,
    via         TEXT NOT NULL,
    released    INTEGER NOT NULL,
    bounce      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    next_try    REAL NOT NULL,
    last_attempt REAL,
    warn_at     REAL,                       -- NULL: never
    warned      INTEGER NOT NULL
);
INSERT INTO "envelopes" VALUES(1,'plain.1',1,1,'x.test','x.test','queued','','',0,0,1,1700000061.0,1700000001.0,1700014400.0,0);
INSERT INTO "envelopes" VALUES(2,'plain.2',1,2,'y.test','y.test','queued','','',0,0,0,1700000000.0,NULL,1700014400.0,0);
INSERT INTO "envelopes" VALUES(3,'return',2,1,'x.test','x.test','queued','','',0,0,0,1700000000.0,NULL,1700000600.0,0);
INSERT INTO "envelopes" VALUES(4,'heldreturn',3,1,'x.test','x.test','held','by its route','',0,0,0,1700000000.0,NULL,1700000600.0,0);
INSERT INTO "envelopes" VALUES(5,'notify',4,1,'x.test','x.test','queued','','',0,0,0,1700000000.0,NULL,1700000900.0,0);
INSERT INTO "envelopes" VALUES(6,'told',5,1,'x.test','x.test','queued','','',0,0,0,1700000000.0,NULL,1700000900.0,1);
INSERT INTO "envelopes" VALUES(7,'early',6,1,'x.test','x.test','queued','','',0,0,0,1700000000.0,NULL,1700000300.0,1);
INSERT INTO "envelopes" VALUES(8,'nobody',7,1,'x.test','x.test','queued','','',0,0,0,1700000000.0,NULL,NULL,0);
INSERT INTO "envelopes" VALUES(9,'nobodyreturn',8,1,'x.test','x.test','queued','','',0,0,0,1700000000.0,NULL,NULL,0);
INSERT INTO "envelopes" VALUES(10,'until',9,1,'x.test','x.test','queued','','',0,0,0,1700007200.0,NULL,1700021600.0,0);
CREATE TABLE log (
    seq         INTEGER PRIMARY KEY,
    message     TEXT NOT NULL,              -- a message's id: it outlives the message
    at          REAL NOT NULL,
    text        TEXT NOT NULL
);
INSERT INTO "log" VALUES(1,'plain',1700000000.0,'one
two');
CREATE TABLE messages (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    arrived     REAL NOT NULL,
    sender      TEXT NOT NULL,              -- for filters: lower case, "<>" for the null path
    fields      TEXT NOT NULL,              -- JSON: what nobody searches for
    trace       BLOB NOT NULL,
    size        INTEGER NOT NULL,           -- of the content, as kept
    lines       INTEGER NOT NULL,
    spooled     INTEGER NOT NULL            -- 1: the content is the file spool/<id>; 0: it is in contents
);
INSERT INTO "messages" VALUES(1,'plain',1700000000.0,'me@dev.test','{"from":["me","dev.test"],"body":"7BIT","envid":"e 1","ret":"HDRS","origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',19,3,0);
INSERT INTO "messages" VALUES(2,'return',1700000000.0,'me@dev.test','{"from":["me","dev.test"],"body":"7BIT","by":[1700000600.0,"R",false],"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',20,3,0);
INSERT INTO "messages" VALUES(3,'heldreturn',1700000000.0,'me@dev.test','{"from":["me","dev.test"],"body":"7BIT","by":[1700000600.0,"R",false],"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',24,3,0);
INSERT INTO "messages" VALUES(4,'notify',1700000000.0,'me@dev.test','{"from":["me","dev.test"],"body":"7BIT","by":[1700000900.0,"N",true],"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',20,3,0);
INSERT INTO "messages" VALUES(5,'told',1700000000.0,'me@dev.test','{"from":["me","dev.test"],"body":"7BIT","by":[1700000900.0,"N",true],"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',18,3,0);
INSERT INTO "messages" VALUES(6,'early',1700000000.0,'me@dev.test','{"from":["me","dev.test"],"body":"7BIT","by":[1700000900.0,"N",true],"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',19,3,0);
INSERT INTO "messages" VALUES(7,'nobody',1700000000.0,'<>','{"from":null,"body":"7BIT","by":[1700000900.0,"N",true],"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',20,3,0);
INSERT INTO "messages" VALUES(8,'nobodyreturn',1700000000.0,'<>','{"from":null,"body":"7BIT","by":[1700000600.0,"R",false],"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',26,3,0);
INSERT INTO "messages" VALUES(9,'until',1700000000.0,'me@dev.test','{"from":["me","dev.test"],"body":"7BIT","hold_until":1700007200.0,"origin":"[192.0.2.7] (client.test)"}',X'52656365697665643A20627920686572652E746573743B206E6F770A',19,3,0);
CREATE TABLE meta (
    key         TEXT PRIMARY KEY,
    value       TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('clock_offset','3600.0');
CREATE TABLE recipients (
    envelope    INTEGER NOT NULL REFERENCES envelopes (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    address     TEXT NOT NULL,              -- for filters: lower case
    fields      TEXT NOT NULL,              -- JSON: mail.envelope.Recipient
    last        TEXT,                       -- JSON: mail.outcome.Deferred
    PRIMARY KEY (envelope, number)
) WITHOUT ROWID;
INSERT INTO "recipients" VALUES(1,0,'a@x.test','{"to":["a","x.test"]}','["4.2.1","450 4.2.1 later","mx.x.test",true]');
INSERT INTO "recipients" VALUES(2,0,'a@y.test','{"to":["a","y.test"]}',NULL);
INSERT INTO "recipients" VALUES(3,0,'a@x.test','{"to":["a","x.test"]}',NULL);
INSERT INTO "recipients" VALUES(4,0,'a@x.test','{"to":["a","x.test"]}',NULL);
INSERT INTO "recipients" VALUES(5,0,'a@x.test','{"to":["a","x.test"]}',NULL);
INSERT INTO "recipients" VALUES(6,0,'a@x.test','{"to":["a","x.test"]}',NULL);
INSERT INTO "recipients" VALUES(7,0,'a@x.test','{"to":["a","x.test"]}',NULL);
INSERT INTO "recipients" VALUES(8,0,'a@x.test','{"to":["a","x.test"]}',NULL);
INSERT INTO "recipients" VALUES(9,0,'a@x.test','{"to":["a","x.test"]}',NULL);
INSERT INTO "recipients" VALUES(10,0,'a@x.test','{"to":["a","x.test"]}',NULL);
CREATE INDEX envelopes_message ON envelopes (message);
CREATE INDEX envelopes_domain ON envelopes (domain);
CREATE INDEX envelopes_due ON envelopes (next_hop, next_try) WHERE state = 'queued';
CREATE INDEX envelopes_untried ON envelopes (next_hop, next_try) WHERE state = 'queued' AND attempts = 0;
CREATE INDEX envelopes_warn ON envelopes (warn_at) WHERE state = 'queued' AND warned = 0 AND warn_at IS NOT NULL;
CREATE INDEX destinations_due ON destinations (due);
CREATE INDEX log_message ON log (message);
COMMIT;
PRAGMA user_version = 1;
