"""What is stored of studies: the database, its trials and files, the ledger of openings."""
