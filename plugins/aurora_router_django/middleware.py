"""Middleware of Django beside that of `aurora_router.web`: it takes the token of what a request wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import router

from aurora_router import web
from aurora_router_django.causal import find_wrapper, pay
from aurora_router_django.routers import ReaderRouter

if TYPE_CHECKING:
    from collections.abc import Callable


class CausalMiddleware:
    """Takes the causal token of a request's writes before its answer begins; the first of ``MIDDLEWARE``.

    `aurora_router.web.WsgiCausalMiddleware`, or the one for ASGI, around the application carries it to the client.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer a request; then take the token, if it may have written."""
        response = self.get_response(request)
        if web.is_in_request():
            routers: Any = router.routers
            for alias in {each.writer for each in routers if isinstance(each, ReaderRouter)}:
                wrapper = find_wrapper(alias)
                if not wrapper.is_transaction_open():
                    pay(wrapper)
        return response
