"""Logins to Aurora as AWS and containers give them, and the RDS API. AWS's need the extra ``aws``, imported late."""

from aurora_router_aws.env import Environment
from aurora_router_aws.iam import IamTokens
from aurora_router_aws.rds import RdsApi
from aurora_router_aws.secret import Secret

__all__ = ["Environment", "IamTokens", "RdsApi", "Secret"]
