"""What PostgreSQL servers say in other languages than English, where routing has to know it.

Read only when the English words fit nowhere. From the catalogues of PostgreSQL 15, by the names of its languages. A
language that is not here, or a sentence that another version translates otherwise, is a refusal for an unknown reason.
"""

# ruff: noqa: RUF001 - letters of other alphabets look like Latin ones

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SENTENCES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "28P01": {
            "de": ("Passwort-Authentifizierung für Benutzer .* fehlgeschlagen",),
            "es": ("la autentificación password falló para el usuario",),
            "fr": ("authentification par mot de passe échouée pour l'utilisateur",),
            "it": ("autenticazione con password fallita per l'utente",),
            "ja": ("ユーザー.*のパスワード認証に失敗しました",),
            "ka": ("პაროლით ავთენტიფიკაცია მომხმარებლისთვის .* ვერ მოხერხდა",),
            "ko": ("사용자 .*의 password 인증을 실패했습니다",),
            "ru": (r"пользователь .* не прошёл проверку подлинности \(по паролю\)",),
            "sv": ("Lösenordsautentisering misslyckades för användare",),
            "uk": ("користувач .* не пройшов автентифікацію за допомогою пароля",),
            "zh_CN": ("用户 .* 的密码认证失败",),
            "zh_TW": ("密碼驗證使用者 .* 失敗",),
            "pt_BR": ("autenticação do tipo senha falhou",),
        },
        "28000": {
            "de": (
                "Rolle .* existiert nicht",
                "Rolle .* hat keine Berechtigung zum Einloggen",
            ),
            "es": (
                "no existe el rol",
                "al rol .* no se le permite conectarse",
            ),
            "fr": (
                "le rôle .* n'existe pas",
                "le rôle .* n'est pas autorisé à se connecter",
            ),
            "it": (
                "il ruolo .* non esiste",
                "al ruolo .* non è consentito effettuare il login",
            ),
            "ja": (
                "ロール.*は存在しません",
                "ロール.*はログインが許可されません",
            ),
            "ka": (
                "როლი არ არსებობს:",
                "როლს შესვლის უფლება არ აქვს:",
            ),
            "ko": (
                r"롤\(role\) 없음",
                "롤은 접속을 허용하지 않음",
            ),
            "ru": (
                "роль .* не существует",
                "для роли .* вход запрещён",
            ),
            "sv": (
                "rollen .* finns inte",
                "roll .* tillåts inte logga in",
            ),
            "uk": (
                "роль .* не існує",
                "для ролі .* вхід не дозволений",
            ),
            "zh_CN": (
                "角色 .* 不存在",
                "不允许角色 .* 进行登录",
            ),
            "zh_TW": (
                "角色 .* 不存在",
                "不允許角色 .* 登入",
            ),
        },
        "3D000": {
            "de": ("Datenbank .* existiert nicht",),
            "es": ("no existe la base de datos",),
            "fr": ("la base de données .* n'existe pas",),
            "it": ("il database .* non esiste",),
            "ja": ("データベース.*は存在しません",),
            "ka": ("მონაცემთა ბაზა .* არ არსებობს",),
            "ko": ("데이터베이스 없음",),
            "ru": ("база данных .* не существует",),
            "sv": ("databasen .* existerar inte",),
            "uk": ("бази даних .* не існує",),
            "zh_CN": ("数据库 .* 不存在",),
            "zh_TW": ("資料庫 .* 不存在",),
            "pt_BR": ("banco de dados .* não existe",),
        },
        "53300": {
            "de": (
                "tut mir leid, schon zu viele Verbindungen",
                "zu viele Verbindungen von Rolle",
                "zu viele Verbindungen für Datenbank",
            ),
            "es": (
                "lo siento, ya tenemos demasiados clientes",
                "demasiadas conexiones para el rol",
                "demasiadas conexiones para la base de datos",
            ),
            "fr": (
                "désolé, trop de clients sont déjà connectés",
                "trop de connexions pour le rôle",
                "trop de connexions pour la base de données",
            ),
            "it": (
                "spiacente, troppi client già connessi",
                "troppe connessioni per il ruolo",
                "troppe connessioni al database",
            ),
            "ja": (
                "現在クライアント数が多すぎます",
                "ロール.*からの接続が多すぎます",
                "データベース.*への接続が多すぎます",
            ),
            "ka": (
                "უკაცრავად, უკვე მეტისმეტად ბევრი კლიენტია",
                "მეტისმეტად ბევრი კავშირი როლისთვის",
                "ძალიან ბევრი კავშირი ბაზისთვის",
            ),
            "ko": (
                "최대 동시 접속자 수를 초과했습니다",
                "롤의 최대 동시 접속수를 초과했습니다",
                "데이터베이스 최대 접속수를 초과했습니다",
            ),
            "ru": (
                "извините, уже слишком много клиентов",
                "слишком много подключений для роли",
                "слишком много подключений к БД",
            ),
            "sv": (
                "ledsen, för många klienter",
                "för många uppkopplingar för roll",
                "för många uppkopplingar till databasen",
            ),
            "uk": (
                "вибачте, вже забагато клієнтів",
                "занадто багато підключень для ролі",
                "занадто багато підключень до бази даних",
            ),
            "zh_CN": (
                "客户端连接过多",
                "角色 .* 的连接过多",
                "数据库 .* 的连接过多",
            ),
            "zh_TW": (
                "抱歉，客戶端過多",
                "角色 .* 的連線太多",
                "資料庫 .* 的連線太多",
            ),
        },
        "57P03": {
            "de": (
                "das Datenbanksystem startet",
                "das Datenbanksystem fährt herunter",
                "das Datenbanksystem ist im Wiederherstellungsmodus",
            ),
            "es": (
                "el sistema de base de datos está iniciándose",
                "el sistema de base de datos está apagándose",
                "el sistema de base de datos está en modo de recuperación",
            ),
            "fr": (
                "le système de bases de données se lance",
                "le système de base de données s'arrête",
                "le système de bases de données est en cours de restauration",
            ),
            "it": (
                "il database si sta avviando",
                "il database si sta spegnendo",
                "il database è in modalità di ripristino",
            ),
            "ja": (
                "データベースシステムは起動処理中です",
                "データベースシステムはシャットダウンしています",
                "データベースシステムはリカバリモードです",
            ),
            "ka": (
                "მიმდინარეობს მონაცემთა ბაზის სისტემის გაშვება",
                "მონაცემთა ბაზის სისტემა ითიშება",
                "მონაცემთა ბაზის სისტემა აღდგენის რეჟიმშია",
            ),
            "ko": (
                "데이터베이스 시스템이 새로 가동 중입니다",
                "데이터베이스 시스템이 중지 중입니다",
                "데이터베이스 시스템이 자동 복구 작업 중입니다",
            ),
            "ru": (
                "система баз данных запускается",
                "система баз данных останавливается",
                "система баз данных в режиме восстановления",
            ),
            "sv": (
                "databassystemet startar upp",
                "databassystemet stänger ner",
                "databassystemet är återställningsläge",
            ),
            "uk": (
                "система бази даних запускається",
                "система бази даних завершує роботу",
                "система бази даних у режимі відновлення",
            ),
            "zh_CN": (
                "数据库系统正在启动",
                "数据库系统正在关闭",
                "数据库系统在恢复模式中",
            ),
            "zh_TW": (
                "資料庫系統正在啟動",
                "資料庫系統正在關閉",
                "資料庫系統處於復原模式",
            ),
        },
    }
)
"""SQLSTATE -> language -> patterns of its sentences."""
