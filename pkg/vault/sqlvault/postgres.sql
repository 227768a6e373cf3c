-- The table of a wxtoken vault in PostgreSQL. The sidecar needs SELECT, INSERT, UPDATE and DELETE on it.
CREATE TABLE wxtoken_vault (
    platform varchar(64)  COLLATE "C" NOT NULL,
    id       varchar(128) COLLATE "C" NOT NULL,
    state    varchar(16)  COLLATE "C" NOT NULL,
    ord      bigint       NOT NULL,
    rev      bigint       NOT NULL,
    sealed   bytea        NOT NULL,
    updated  timestamptz  NOT NULL,
    PRIMARY KEY (platform, id)
);
CREATE INDEX wxtoken_vault_state ON wxtoken_vault (platform, state, updated);
