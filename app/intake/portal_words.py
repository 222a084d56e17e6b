"""Tables of the words that portals, spreadsheets and people use for a device's outcome.

They have column titles and words for outcomes, in English and in the languages whose titles `columns` knows
(German, French, Spanish, Italian, Dutch, Japanese). They are compared after `columns.normalise`: letters and
digits, without case and accents. A new wording is one more string here.
"""

from enum import StrEnum
from typing import Final

from app.domain.registration import RegistrationState
from app.intake.columns import normalise


class Title(StrEnum):
    """The purpose of a column in a list of results."""

    STATUS = "status"
    CODE = "code"
    """Microsoft's number, or whether there was an error at all."""
    NAME = "name"
    """Microsoft's name for the error."""
    TEXT = "text"
    """Sentences for people, never sufficient by themselves."""
    FLAG = "flag"
    """Whether it succeeded: yes or no."""
    FILE_ROW = "file_row"
    """The row of the uploaded file, counted from 1 without the header."""


class Word(StrEnum):
    """What a word says about a device."""

    REGISTERED = "registered"
    ALREADY = "already_registered"
    CONFLICT = "conflict"
    FAILED = "failed"
    JOB_DONE = "job_done"
    """The upload is over. Beside another outcome it says nothing about the device."""
    UNDER_WAY = "under_way"


_TITLES: Final[dict[Title, tuple[str, ...]]] = {
    Title.STATUS: (
        "Status", "State", "Result", "Outcome", "Import status", "Upload status", "Device status",
        "Device import status", "Import result", "Registration status", "Registration state",
        "Zustand", "Ergebnis", "Importstatus", "Gerätestatus", "Registrierungsstatus",
        "Statut", "État", "Résultat", "Statut de l'importation", "État de l'appareil",
        "Estado", "Resultado", "Estado de importación", "Estado del dispositivo",
        "Stato", "Esito", "Risultato", "Stato importazione", "Stato dispositivo",
        "Resultaat", "Importstatus", "Apparaatstatus", "Uitkomst",
        "状態", "ステータス", "結果", "インポートの状態",
    ),
    Title.CODE: (
        "Error code", "Error", "Errors", "Code", "Device error code", "Import error code", "Error number",
        "Fehlercode", "Fehler", "Fehlernummer",
        "Code d'erreur", "Code erreur", "Erreur", "Numéro d'erreur",
        "Código de error", "Número de error",
        "Codice errore", "Codice di errore", "Errore",
        "Foutcode", "Fout", "Foutnummer",
        "エラーコード", "エラー コード", "エラー",
    ),
    Title.NAME: (
        "Error name", "Device error name", "Import error name",
        "Fehlername", "Fehlerbezeichnung", "Nom de l'erreur", "Nom d'erreur", "Nombre del error",
        "Nombre de error", "Nome errore", "Nome dell'errore", "Foutnaam", "エラー名",
    ),
    Title.TEXT: (
        "Error message", "Error description", "Message", "Details", "Detail", "Description", "Error details",
        "Error detail", "Reason", "Comment", "Note", "Status message", "Status details", "Result message",
        "Fehlermeldung", "Fehlerbeschreibung", "Fehlerdetails", "Meldung", "Nachricht", "Beschreibung",
        "Einzelheiten", "Grund", "Bemerkung",
        "Message d'erreur", "Description de l'erreur", "Détails", "Détail", "Raison", "Commentaire",
        "Mensaje de error", "Mensaje", "Descripción del error", "Descripción", "Detalles", "Motivo",
        "Messaggio di errore", "Messaggio", "Descrizione errore", "Descrizione dell'errore", "Descrizione",
        "Dettagli", "Foutmelding", "Foutbeschrijving", "Bericht", "Beschrijving", "Opmerking", "Reden",
        "エラーメッセージ", "エラー メッセージ", "メッセージ", "説明", "詳細", "理由",
    ),
    Title.FLAG: (
        "Success", "Succeeded", "Successful", "Erfolg", "Erfolgreich", "Réussi", "Succès", "Éxito",
        "Successo", "Riuscito", "Geslaagd", "成功",
    ),
    Title.FILE_ROW: (
        "CSV row", "CSV rows", "CSV row number", "CSV row numbers", "CSV line", "File row", "File rows",
        "Row in file", "Row of the file", "Row number in the file", "Affected rows",
        "CSV-Zeile", "CSV-Zeilen", "CSV-Zeilennummer", "Dateizeile", "Ligne CSV", "Lignes CSV",
        "Ligne du fichier", "Fila CSV", "Fila del archivo", "Riga CSV", "Riga del file", "CSV-rij",
        "CSV-regel", "CSV 行", "CSV の行",
    ),
}  # fmt: skip

_WORDS: Final[dict[Word, tuple[str, ...]]] = {
    Word.REGISTERED: (
        "Success", "Succeeded", "Successful", "Successfully", "Registered", "Imported", "Added", "OK",
        "Erfolgreich", "Erfolg", "Registriert", "Importiert", "Hinzugefügt", "Gelungen",
        "Réussi", "Réussie", "Réussite", "Succès", "Enregistré", "Enregistrée", "Importé", "Importée",
        "Correcto", "Éxito", "Exitoso", "Exitosa", "Registrado", "Registrada", "Importado", "Importada",
        "Riuscito", "Riuscita", "Operazione riuscita", "Registrato", "Registrata", "Importato", "Importata",
        "Geslaagd", "Gelukt", "Geregistreerd", "Geïmporteerd", "Toegevoegd",
        "成功", "成功しました", "登録済み", "登録完了",
    ),
    Word.ALREADY: (
        "Already registered", "Already assigned", "Registered before", "Bereits registriert",
        "Bereits zugewiesen", "Déjà enregistré", "Déjà inscrit", "Déjà attribué", "Ya registrado",
        "Ya asignado", "Già registrato", "Già assegnato", "Al geregistreerd", "Al toegewezen",
        "既に登録済み", "すでに登録済み",
    ),
    Word.CONFLICT: (
        "Conflict", "Owned by somebody else", "Assigned to other tenant", "Assigned to another tenant",
        "Konflikt", "Conflit", "Conflicto", "Conflitto", "競合",
    ),
    Word.FAILED: (
        "Failed", "Failure", "Fail", "Error", "Errors", "Finished with errors", "Completed with errors",
        "Rejected", "Refused", "Unsuccessful",
        "Fehler", "Fehlgeschlagen", "Fehlerhaft", "Gescheitert", "Abgelehnt", "Mit Fehlern abgeschlossen",
        "Échec", "Échoué", "Échouée", "Erreur", "Refusé", "Rejeté", "Terminé avec des erreurs",
        "Fallo", "Fallido", "Fallida", "Falló", "Erróneo", "Rechazado", "Con errores",
        "Errore", "Fallito", "Fallita", "Non riuscito", "Non riuscita", "Operazione non riuscita",
        "Rifiutato", "Mislukt", "Fout", "Geweigerd", "Afgewezen", "失敗", "失敗しました", "エラー", "拒否",
    ),
    Word.JOB_DONE: (
        "Finished", "Complete", "Completed", "Done", "Abgeschlossen", "Fertig", "Beendet", "Fertiggestellt",
        "Terminé", "Terminée", "Achevé", "Completado", "Completada", "Terminado", "Finalizado",
        "Completato", "Completata", "Terminato", "Voltooid", "Klaar", "Gereed", "Afgerond",
        "完了", "完了しました", "終了",
    ),
    Word.UNDER_WAY: (
        "Unknown", "Pending", "Partial", "Queued", "Processing", "In progress", "Running", "Uploaded",
        "Submitted", "Being registered", "Being sent", "Waiting", "Waiting for their turn", "Outcome unknown",
        "Unbekannt", "Ausstehend", "In Bearbeitung", "Wird verarbeitet", "Läuft", "Wartend", "Hochgeladen",
        "En cours", "En attente", "Inconnu", "Pendiente", "En proceso", "En curso", "Desconocido",
        "In sospeso", "In corso", "In attesa", "Sconosciuto", "In behandeling", "Bezig", "Onbekend",
        "Wachtend", "処理中", "保留中", "保留", "不明", "進行中",
    ),
}  # fmt: skip

_NO_ERROR: Final = (
    "None", "No error", "No errors", "Null", "N/A", "No", "False", "S_OK", "200", "200 OK", "OK", "Success",
    "Kein Fehler", "Keine Fehler", "Keine", "Keiner", "Nein", "Falsch", "Aucune erreur", "Aucune", "Aucun",
    "Non", "Faux", "Pas d'erreur", "Sin error", "Sin errores", "Ninguno", "Ninguna", "Ningún error", "Falso",
    "Nessun errore", "Nessuno", "Nessuna", "Geen fout", "Geen fouten", "Geen", "Nee", "Onwaar",
    "エラーなし", "なし", "いいえ", "無",
)  # fmt: skip
_NO: Final = ("No", "False", "Nein", "Falsch", "Non", "Faux", "Falso", "Nee", "Onwaar", "いいえ")
_YES: Final = ("Yes", "True", "Ja", "Wahr", "Oui", "Vrai", "Sí", "Verdadero", "Sì", "Vero", "Waar", "はい")
_NEUTRAL: Final = (
    "import", "importing", "to", "the", "a", "was", "were", "is", "has", "been", "have", "device", "devices",
    "autopilot", "windows", "status", "registration", "registering", "register", "with", "gerät", "wurde",
    "importieren", "der", "die", "das", "registrierung", "importation", "appareil", "de", "la", "le", "el",
    "l", "del", "importación", "dispositivo", "importazione", "importeren", "apparaat", "van", "het",
)  # fmt: skip
"""Words in sentences about importing that decide nothing."""

SHOWN_WORDS: Final = "Success, Registered, Already registered, Conflict, Failed, Error, Pending"
"""The known words, for a message about an unknown one."""


TITLES: Final = {normalise(name): kind for kind, group in _TITLES.items() for name in group}
WORDS: Final = {normalise(name): word for word, group in _WORDS.items() for name in group}
NO_ERROR: Final = frozenset(normalise(name) for name in _NO_ERROR) | {""}
NO: Final = frozenset(normalise(name) for name in _NO)
YES: Final = frozenset(normalise(name) for name in _YES)
NEUTRAL: Final = frozenset(normalise(name) for name in _NEUTRAL)

STATES: Final = {
    Word.REGISTERED: RegistrationState.REGISTERED,
    Word.ALREADY: RegistrationState.ALREADY_REGISTERED,
    Word.CONFLICT: RegistrationState.CONFLICT,
    Word.FAILED: RegistrationState.FAILED,
    Word.JOB_DONE: RegistrationState.REGISTERED,
}


def title_of(name: str) -> Title | None:
    """The purpose of a column by its name, including `state.deviceErrorCode` and other flattened objects."""
    return TITLES.get(normalise(name)) or TITLES.get(normalise(name.rpartition(".")[2]))
