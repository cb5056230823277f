"""The SQL surfaces that there are: the names of their files in ``sql``."""

AURORA = "surface"
RDS_MULTI_AZ = "rds_tools"
