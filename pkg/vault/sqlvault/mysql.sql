-- The table of a wxtoken vault in MySQL or MariaDB. The sidecar needs SELECT, INSERT, UPDATE and DELETE on it.
CREATE TABLE wxtoken_vault (
    platform varchar(64)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    id       varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    state    varchar(16)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    ord      bigint       NOT NULL,
    rev      bigint       NOT NULL,
    sealed   blob         NOT NULL,
    updated  datetime(6)  NOT NULL,
    PRIMARY KEY (platform, id),
    KEY wxtoken_vault_state (platform, state, updated)
) ENGINE = InnoDB;
